// Package yamlpos reads YAML files that people write, strictly, and reports every
// mistake with its file, line and column and, where there is one, the nearest valid
// word. Inventories and playbooks are read with it.
//
// A [Decoder] walks the nodes of one file. A [Report] collects the mistakes in all
// files and returns them as one [*Errors]. The package does not depend on the kind of
// file: a [Doc] supplies the words for error messages.
package yamlpos
