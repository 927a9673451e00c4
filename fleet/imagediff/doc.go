// Package imagediff compares two images: their files and their packages.
//
// It reads the manifests that hosts keep of images (node/images/tree), and only those files
// that list packages. A manifest is compared with the image's ID, and a file with its digest
// in there: a host cannot make an image look like another one.
//
// Times of modification are counted, but no difference: each build sets them anew.
package imagediff
