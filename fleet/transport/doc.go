// Package transport reaches hosts over SSH: one connection per host, and on it
// commands with their exit status, and pipes.
//
// It is strict with host keys: an unknown one is refused with its fingerprint, a
// changed one with both fingerprints. It is careful with sshd: at most eight handshakes
// run at once at one sshd (MaxStartups drops some beyond ten), fewer if it drops some.
// A connection that is dropped before sshd sends its version, or breaks before the
// authentication, is tried again; an sshd that punishes this machine is waited for,
// within bounds. A failed login is not repeated. At most eight sessions share a
// connection (MaxSessions). At most five keys are offered (MaxAuthTries, and the
// penalties of sshd 9.8 and later). A [Dialer] shares between hosts the parsed
// known_hosts files, the keys, and the connection to a bastion, which is made once more
// if it is lost.
//
// Every function that can wait takes a context. A connection whose host no longer
// answers is closed by its keepalive. [Unreachable] distinguishes "the host could
// not be reached" from "the command failed there"; [Local] reports errors of this
// machine. Errors have a method ErrorKind, whose words are those of package outcome.
//
// If the controller is killed, its connections end and sshd closes their sessions; a
// command that neither reads nor writes may go on. A known_hosts file is replaced as
// a whole, so it is the old one or the new one. No particular kernel is needed.
//
// The package asks the user only through [Dialer.Ask], and does not read ssh_config:
// package fleet makes [Settings] from the inventory and ssh_config. Only [Dialer.Trust]
// changes known_hosts.
package transport
