// Package fakesshd runs SSH servers in this process that misbehave on demand, as
// sshd does too rarely for a test: they drop connections as MaxStartups does, refuse a
// penalised address as sshd 9.8 and later do, print text before the version, show
// another host key, refuse sessions, and hang or hang up in any [Phase].
//
// A server answers `vsnode serve` for a host in memory, so a controller can ask
// thousands of them. What it lacks of sshd (users, shells, forwarding unless
// [Options.Forward] is set) is for tests with sshtest.
//
// Nothing outlives [Server.Close].
package fakesshd
