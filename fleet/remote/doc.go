// Package remote is a host's vsnode as the controller sees it. A [Host] is one that
// is connected. [Host.Serve] starts a `vsnode serve` there, a [Node], which answers
// many typed requests over one session. What has bytes of its own (images, logs,
// programs, terminals) is one request to a `vsnode stream`, in a session for itself:
// [Host.Exec], [Host.Terminal], [Host.Log], [Host.ExportImage], [Host.ImportImage].
//
// What a host says is not trusted further than that host: it cannot make the
// controller allocate without end, point outside of what was asked, or write
// control characters to a terminal. Answers are bounded and checked on arrival,
// before anybody else sees them.
//
// A controller that is killed ends its session: the host cancels what is under
// way and undoes it. Nothing is kept here.
package remote
