// Package remote is a host's vsnode as the controller sees it: typed requests to
// one `vsnode serve` that [push.Start] has started.
//
// What a host says is not trusted further than that host: it cannot make the
// controller allocate without end, point outside of what was asked, or write
// control characters to a terminal. Answers are bounded and checked on arrival,
// before anybody else sees them.
//
// A controller that is killed ends its session: the host cancels what is under
// way and undoes it. Nothing is kept here.
package remote
