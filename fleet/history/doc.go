// Package history records the runs of vsfleet: who ran which command when, on which
// hosts, with which plan, the result of each step, and the output of commands.
//
// # Journal first
//
// A [Recorder] receives the events of a run and appends them to the run's journal, a
// file of JSON lines. A host's plan is in the journal before the host is changed, and
// the result of each step when the step ends. At the end of the run its journal is
// copied into the store and removed. A journal is locked while its run lives. A journal
// without a lock belongs to a vsfleet that was killed; the next vsfleet stores it as
// interrupted.
//
// # Guarantees
//
// If a run is killed at any instruction, all earlier events are kept: the run goes on
// only when the kernel has an event, which is synced to disk soon after. A line that
// was only partly written is skipped and reported. Storing a journal twice has the same
// result as storing it once.
//
// The history never stops a run or delays it for long. If the disk is full or hangs, or
// the store is unreachable, slow or full, the run goes on with one warning. A journal
// that could not be stored stays, and the next vsfleet tries again.
//
// # Stores
//
// The store is a database with one schema: a SQLite file beside the journals, or a
// PostgreSQL database of a team. Many vsfleets may use it at the same time.
//
// # Edges
//
// No run depends on the history, except that a rerun takes its hosts from it. The
// history contains no secrets that it recognizes: secrets of the inventory, and
// passwords in command lines and addresses, are replaced before anything is written.
// The output of each command and of each run is bounded.
package history
