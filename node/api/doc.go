// Package api is what vsfleet and vsnode say to each other: the requests, the
// answers and the events of one host. Types only; nothing here touches a host.
//
// The road is one `vsnode serve` a host, JSON-RPC 2.0 messages of one line each
// (internal/wire) over its standard input and output. The first bytes of vsnode are [Preamble]: whatever a login shell printed before
// is skipped by the controller. Terminals and bulk data (images) take an SSH
// session of their own and a command line instead of a request.
//
// Both ends are one version (the controller pushes the vsnode that it talks
// to), so these types carry no version and may change at will. What a guest
// is on disk is node/guest's matter, and does not.
package api
