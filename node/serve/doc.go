// Package serve answers a controller: it writes [api.Preamble], then reads
// requests and writes events and results, as JSON-RPC 2.0 messages of one line
// each (see internal/wire). It knows the form of a request and none of its
// meaning: what is done is done by a [Host].
//
// Requests run side by side; the events of one are written in the order they
// were emitted, and before its result. The notification rpc.cancel ends the
// context of one request. At the end of its input (the controller closed, was
// killed, or the link broke), or when nothing came for [api.Silence] (the
// controller's machine is gone without a word), everything under way is cancelled, undone by
// those who do it, and waited for. A request that panics gets an error as its
// answer, the stack goes to standard error, and the others go on.
//
// Serve may be killed at any point: it keeps nothing.
package serve
