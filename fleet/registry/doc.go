// Package registry reads images from OCI registries and writes them there.
//
// An image that is read becomes one file in OCI's image layout, which a host builds from
// as from a layout of its own: hosts ask no registry, and hold no credentials.
//
// Every byte is compared with the digest that names it, on this machine and again on the
// host. A tag is resolved once, to the manifest for a platform. Registries are reached by
// TLS; those of this machine's loopback may do without.
//
// Files on the way have no name: nothing is left when the process is killed.
package registry
