// Package yamlpos reads YAML files that people write, strictly, and reports every
// mistake with its file, line and column and, where there is one, the nearest valid
// word. Inventories and playbooks are read with it.
//
// A [Decoder] walks the nodes of one file; a [Report] collects the mistakes of all
// files, which are one [*Errors] at the end. Nothing here knows what a file is
// about: a [Doc] has the words for it.
package yamlpos
