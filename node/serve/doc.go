// Package serve answers a controller: it writes [api.Preamble], then reads
// requests and writes events and results, as JSON-RPC 2.0 messages of one line
// each (see internal/wire). It knows the form of a request but not its meaning: a
// [Host] carries it out.
//
// Requests run concurrently; the events of one are written in the order in which they
// were emitted, and before its result. The notification rpc.cancel ends the context of
// one request. At the end of its input (the controller closed it, was killed, or the
// link broke), or if nothing arrives for [api.Silence] (the controller's machine
// disappeared), Serve cancels all requests and waits until they have undone their
// work. If a request panics, its answer is an error, the stack goes to standard error,
// and the others go on.
//
// Serve may be killed at any point: it keeps nothing.
package serve
