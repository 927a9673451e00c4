// Package fanout does one thing on many hosts at once: as many side by side as
// forks says, results in the order of the hosts, each with its outcome. One host
// that fails or cannot be reached stops no other. When the context ends, no
// further host is begun, and those under way are told; hosts that were never
// begun say so.
//
// Each host may have only so much time ([Limits]), and results can be watched as
// they come ([Watch]).
package fanout
