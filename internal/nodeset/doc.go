// Package nodeset reads and writes sets of host names in brackets, as pdsh,
// ClusterShell and Ansible know them:
//
//	web[1-12]            web1 … web12
//	web[01-03,07]        web01, web02, web03, web07
//	web[0-20/5]          web0, web5 … web20; Ansible writes [0:20:5]
//	r[1-2]n[a:c]         r1na, r1nb, r1nc, r2na …
//
// [Expand] and [Fold] are inverse: Expand reads what Fold writes back as the same
// names. A number keeps the leading zeros of the first end of its range.
package nodeset
