// Package api defines the requests, answers and events that vsfleet and vsnode
// exchange about one host. It has types only; nothing here touches a host.
//
// A controller talks to one `vsnode serve` per host: JSON-RPC 2.0 messages,
// one per line (internal/wire), over its standard input and output. A request that
// carries bulk data (images, logs, programs, terminals) has the same form, and goes
// to a `vsnode stream` in an SSH session of its own, with the data in frames beside
// it. The first line of both is [Preamble]: the controller skips what a login shell
// printed before. No part of a request is on a command line.
//
// Both ends have the same version (the controller pushes the vsnode that it talks
// to), so these types carry no version and may change at will. A guest's files on
// disk, which must not change, belong to node/guest.
package api
