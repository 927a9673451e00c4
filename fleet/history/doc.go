// Package history keeps what vsfleet did: who ran which command when, on which hosts,
// with which plan, what came of each step, and what commands wrote.
//
// # Journal first
//
// A [Recorder] gets the events of a run. Before a host is changed, its plan is in the
// run's journal, a file of JSON lines that is only appended to, and each step follows
// as it ends. When the run has ended, its journal is taken into the store and
// removed. The journal is locked while its run lives: a journal without a lock is that
// of a vsfleet that was killed, and the next vsfleet takes it in as interrupted.
//
// # Guarantees
//
// Killed at any instruction, a run loses nothing that had happened before: the kernel
// has each event before the run goes on, and the disk has it soon after. A line that
// was half written is skipped and named. Taking a journal in twice is the same as once.
//
// Nothing of the history stops a run or holds it up for long. If the disk is full or
// does not answer, or the store is away, slow or full, the run goes on and one warning
// says so; a journal that could not be taken in stays, and the next vsfleet tries again.
//
// # Stores
//
// The store is a database with one schema: SQLite in a file beside the journals,
// or a PostgreSQL that a team shares. Many vsfleets use one at the same time.
//
// # Edges
//
// The history decides nothing: no run reads it, except to name the hosts of a rerun.
// It keeps no secrets: what an inventory encrypts or marks as secret, passwords in
// command lines and in addresses are replaced before anything is written. Output is
// kept up to a bound for each command and each run.
package history
