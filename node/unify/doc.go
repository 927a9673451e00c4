// Package unify finds the files of a guest's upper layer whose contents can be shared, and
// removes them from it once the guest's lower layer has them.
//
// [Scan] reads a layer: regular files that a manifest can hold with all that they have
// (package tree), where they are found if they are in the lower layer only, and which
// directories hide what is below them. What is not understood stays the guest's own.
// Links are not followed, and no other filesystem is entered.
//
// Between the two, the caller has the lower layer made and noted. [Plan.Finish] can then be
// killed at any instruction and called again, as long as the guest has not been mounted:
// it removes only files that are still those that were read, and gives their directories
// their times back.
//
// What it never does: read or write a file's content, or decide what is worth sharing.
package unify
