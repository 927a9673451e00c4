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
// A layer may be read while the guest runs, and the plan be carried out at its next start: the
// guest sees nothing of it until then, and nothing that it writes is lost. What was read then
// counts for nothing by itself: the layer is scanned again when the guest has ended, and only
// files that are still the same at the same path are removed ([Layer.Unchanged]): the same
// inode, size, and times of change and modification. The lower layer is made for these alone,
// so that a file that was removed, replaced or moved with its directory does not come back.
// That the same time of change means the same content takes three things. No program can set
// that time. A file that somebody has open or mapped for writing is left, as a page that is
// dirty already can be written again without a new time; whoever opens it later gives it one.
// And a file of a running guest must have been left alone for two seconds before it is read,
// as the kernel's clock for files stands still for some milliseconds. A clock that is set
// back to the very nanosecond of an earlier change is not defended against.
//
// What it never does: read or write a file's content, or decide what is worth sharing.
package unify
