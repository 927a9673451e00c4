// Package images brings an image from hosts that have it to hosts that lack it.
//
// A [Delivery] reads the image once from its source, through the controller, and
// each target reads it from there at its own pace: a slow or dead target does not
// hold up the others. What is under way is kept in a file without a name, so that
// nothing is left of it whatever happens to vsfleet. If the source breaks off, the
// targets begin again with the next one. A source or a target that stands still is
// given up.
//
// Which hosts have the image, who builds it and who needs it is decided elsewhere
// (packages plan and rollout), and so is how a host is spoken with: sources and
// targets are functions. What a target keeps is its own matter: it takes an image
// under its digest or not at all.
package images
