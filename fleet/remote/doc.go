// Package remote is the controller's side of a host's vsnode. A [Host] is a connected
// host. [Host.Serve] starts a `vsnode serve` there, a [Node], which answers
// many typed requests over one session. A request with a stream of bytes (images, logs,
// programs, terminals) has a `vsnode stream` and a session of its own:
// [Host.Exec], [Host.Terminal], [Host.Log], [Host.ExportImage], [Host.ImportImage], [Host.MakeImage].
//
// A host's answers are trusted only about that host: it cannot make the
// controller allocate without bound, name anything outside the request, or write
// control characters to a terminal. Answers are bounded and validated on arrival,
// before any other package sees them.
//
// If the controller is killed, its session ends: the host cancels and undoes what is
// under way. The package keeps no state on disk.
package remote
