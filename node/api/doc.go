// Package api is what vsfleet and vsnode say to each other: the requests, the
// answers and the events of one host. Types only; nothing here touches a host.
//
// A controller speaks with one `vsnode serve` per host: JSON-RPC 2.0 messages,
// one per line (internal/wire), over its standard input and output. What has
// bytes of its own (images, logs, programs, terminals) is one request of the same
// form to a `vsnode stream`, in an SSH session of its own, with the bytes beside
// it in frames. The first line of both is [Preamble]: the controller skips what a
// login shell printed before. Nothing of a request is part of a command line.
//
// Both ends are one version (the controller pushes the vsnode that it talks
// to), so these types carry no version and may change at will. What a guest
// is on disk is node/guest's matter, and does not.
package api
