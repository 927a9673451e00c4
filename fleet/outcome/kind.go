package outcome

import "strings"

// Kind is the kind of an error, for programs to act on.
type Kind string

// Kinds of errors on the way to a host.
const (
	KindDNS         Kind = "dns"         // its name has no address
	KindTCP         Kind = "tcp"         // its port takes no connection
	KindThrottled   Kind = "throttled"   // its sshd drops connections (MaxStartups)
	KindPenalty     Kind = "penalty"     // its sshd punishes this machine (PerSourcePenalties)
	KindHostKey     Kind = "hostkey"     // its host key is not known, or is another one
	KindAuth        Kind = "auth"        // its sshd does not let the user in
	KindLost        Kind = "lost"        // the connection ended while it was in use
	KindUnreachable Kind = "unreachable" // anything else on the way
)

// Kinds of errors on a host, and of this machine.
const (
	KindSudo        Kind = "sudo"        // sudo or doas do not let the user become root
	KindNoexec      Kind = "noexec"      // vsnode is on a filesystem where nothing may run
	KindDisk        Kind = "disk"        // a filesystem is full
	KindTimeout     Kind = "timeout"     // it took longer than it may
	KindInterrupted Kind = "interrupted" // by Ctrl-C
	KindLocked      Kind = "locked"      // another run is changing the host
	KindUnconfirmed Kind = "unconfirmed" // a new connection did not reach it after a change, which it takes back
	KindLocal       Kind = "local"       // of this machine
	KindHost        Kind = "host"        // the host could not do it
	KindRefused     Kind = "refused"     // the host cannot have the guest
	KindStep        Kind = "step"        // a step failed
	KindExit        Kind = "exit"        // a command ended with another status than 0
	KindStopped     Kind = "stopped"     // the stop rule kept it from being begun
	KindUnable      Kind = "unable"      // the host lacks what every guest needs
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		KindDNS, KindTCP, KindThrottled, KindPenalty, KindHostKey, KindAuth, KindLost, KindUnreachable,
		KindSudo, KindNoexec, KindDisk, KindTimeout, KindInterrupted, KindLocked, KindUnconfirmed, KindLocal, KindHost,
		KindRefused, KindStep, KindExit, KindStopped, KindUnable,
	}
}

// hints says what to do about errors of a kind, for kinds whose errors have a common
// remedy. docs/troubleshooting.md explains each.
var hints = map[Kind]string{
	KindDNS:         "check the address in the inventory and this machine's resolver: getent hosts NAME",
	KindTCP:         "check that the host is up and that every firewall on the way lets this machine through",
	KindThrottled:   "work on fewer hosts at once (--forks), wait longer (--connect-timeout), or raise MaxStartups in the sshd_config there",
	KindPenalty:     "wait some minutes; to exempt this machine, name it in PerSourcePenaltyExemptList in the sshd_config there",
	KindHostKey:     "compare with the fingerprint that the host itself shows (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)",
	KindAuth:        "try it by hand: ssh -v USER@ADDRESS; sshd's log there says why (journalctl -u ssh -u sshd)",
	KindLost:        "run the same command again: it finishes or undoes what was under way",
	KindSudo:        "try it by hand: ssh USER@ADDRESS sudo -n true; give the password with -K, or log in as root",
	KindNoexec:      "allow programs there: mount -o remount,exec, for a filesystem of its own at /var/lib/vsnode",
	KindDisk:        "make room there, then run the same command again: df -h and df -i show what is full",
	KindUnconfirmed: "compare the addresses and forwards of these guests with the host's own addresses, routes and sshd",
	KindTimeout:     "the host answers too slowly or hangs: look there, or wait longer (--connect-timeout, --timeout)",
}

// Hint returns what to do about errors of the kind, or "" if the errors themselves say
// it.
func (k Kind) Hint() string { return hints[k] }

// KindOfText returns the kind of an error from its text, or "" if the text does not
// show it.
func KindOfText(text string) Kind {
	for _, part := range []struct {
		text string // of Linux
		kind Kind
	}{
		{"no space left on device", KindDisk},
		{"No space left on device", KindDisk},
		{"disk quota exceeded", KindDisk},
		{"Disk quota exceeded", KindDisk},
		{"ead-only file system", KindDisk},
	} {
		if strings.Contains(text, part.text) {
			return part.kind
		}
	}
	return ""
}
