// Package sshconfig returns the settings of the user's ssh_config for a host.
//
// Where OpenSSH is installed, it evaluates the configuration itself (ssh -G), so that
// Include, Match, tokens and canonical names mean exactly what they mean to ssh. Hosts
// to which the same blocks apply share one call: a thousand hosts below "Host *" need
// one process. Without ssh, or without a configuration, the package evaluates the
// files; then "Match exec" and the criteria that need OpenSSH do not match, and
// [Options.Skipped] names them.
//
// The result has only settings that differ from OpenSSH's defaults; all others are
// unset. Package fleet applies the settings to connections.
//
// The package reads files and runs ssh, which opens no connection and may run the commands
// of "Match exec". It writes nothing; killed, it leaves nothing behind.
package sshconfig
