// Package fanout does one thing on many hosts, a bounded number of them at a time
// ([Limits]). Results come in the order of the hosts, each with its outcome, and can
// be watched as they come ([Watch]).
//
// A host that fails or cannot be reached does not stop the others. When the context
// ends, hosts under way see it, and no further hosts are started: their outcome is
// outcome.NotStarted.
package fanout
