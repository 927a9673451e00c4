// Package sshconfig answers what the user's ssh_config says about a host.
//
// OpenSSH itself is asked where it is installed (ssh -G), so that Include, Match, tokens
// and canonical names mean exactly what they mean to ssh. Hosts for which the same blocks
// apply share one call: a thousand hosts below "Host *" cost one process. If there is no
// ssh, or no configuration, files are evaluated here; then "Match exec" and the criteria
// that need OpenSSH do not match, and [Options.Skipped] names them.
//
// The answer holds only what differs from OpenSSH's own defaults: what a file does not set
// stays unset. Package fleet decides what the settings mean to a connection.
//
// The package reads files and runs ssh, which opens no connection and may run the commands
// of "Match exec". It writes nothing; killed, it leaves nothing behind.
package sshconfig
