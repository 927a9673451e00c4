// Package transport reaches hosts over SSH: one connection per host, and on it
// commands with their exit status, and pipes.
//
// It is strict where others ask: a host key that known_hosts does not hold is
// refused with its fingerprint, a changed one with both. It is careful with
// sshd: no more than eight handshakes at once at one door (MaxStartups drops
// beyond ten), fewer where it drops some, a connection dropped before sshd said
// its name is tried again, and no more than five keys are offered (MaxAuthTries, and the penalties of
// sshd 9.8 and later). A [Dialer] shares what hosts can share: parsed
// known_hosts files, keys, and the connection to a bastion.
//
// Whatever can wait takes a context. A connection whose host no longer answers
// is closed by its keepalive. [Unreachable] tells "the host could not be
// reached" from "what it was asked to do failed", [Local] both from what is
// wrong on this machine.
//
// The package asks nobody anything and reads no ssh_config: what it needs to know
// is in [Settings]. Only [Dialer.Trust] changes known_hosts.
package transport
