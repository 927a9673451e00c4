// Package outcome names what came of a host or of a step, once for all of the
// controller: results, reports, records, tables and the exit status use the
// same words. [Of] makes an outcome of an error, [Worst] one of several, and
// [ExitCode] the exit status of vsfleet.
//
// It imports nothing of ours. Errors say by a method which [Kind] they are of.
package outcome
