// Package identity makes the files of a guest those of another one, on their way from host to
// host: of a clone, so that neither can pose as the other.
//
// New are the host keys of sshd, of the same kinds; the machine id of systemd and D-Bus; and
// the guest's name and addresses in /etc/hostname and /etc/hosts. What only the image has stays, and so does all else
// that a program has noted about itself: certificates, logs, keys of applications.
package identity
