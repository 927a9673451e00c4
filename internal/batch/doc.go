// Package batch reads the sizes of batches, "1,10%,100%", and cuts a number of hosts
// into batches of these sizes.
package batch
