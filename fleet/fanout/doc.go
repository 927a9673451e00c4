// Package fanout does one thing on many hosts at once: as many side by side as
// forks says, results in the order of the hosts, each with what class of
// result it is. One host that fails or cannot be reached stops no other. When
// the context ends, nothing new is started and what runs is told; hosts that
// were never begun say so.
//
// Each host may have only so much time ([Limits]), and results can be watched as
// they come ([Watch]).
//
// [ExitCode] is the rule by which results become the exit code of vsfleet.
package fanout
