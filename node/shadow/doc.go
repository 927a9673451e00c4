// Package shadow finds which files of a guest's own hide what an update of its image
// changes, and puts them aside or merges them before the guest is mounted over the new
// image.
//
// Find is given the paths that differ between two images, and looks for each of them in
// the guest's upper layer: what it does is bounded by the images, however many files the
// guest has, and no name that the guest has chosen is read. All is opened below the
// layer's directory by descriptor, through no link. A directory that the guest renamed
// counts as removed at its old place; its files at the new one are not compared.
//
// A [Store] keeps what was taken from a guest in a directory beside its own files, with a
// record that is on the disk before the first file is touched. A move that was killed is
// finished by the same call, or undone by a call with another image. When the guest
// returns to the image that it had, each file is put back as it was, unless the guest has
// written to its path since: nothing that a guest wrote is removed.
package shadow
