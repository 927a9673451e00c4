package sshconfig

import (
	"slices"
	"strings"
)

// Options are settings of ssh_config for one host: values by keyword in lower case. A
// keyword that may be given several times has several values.
type Options struct {
	values map[string][]string
	// Skipped names what could not be evaluated.
	Skipped []string
}

// Value returns the value of a keyword, "" if it is not set.
func (o Options) Value(keyword string) string {
	if v := o.values[keyword]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Values returns all values of a keyword: each line of identityfile, each file of
// userknownhostsfile.
func (o Options) Values(keyword string) []string { return o.values[keyword] }

// Keywords returns the keywords that are set, sorted.
func (o Options) Keywords() []string {
	var list []string
	for k := range o.values {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// repeated are the keywords of which each line adds a value.
var repeated = []string{"identityfile", "certificatefile", "sendenv", "setenv", "localforward", "remoteforward", "dynamicforward"}

// listed are the keywords with several values on a line.
var listed = []string{"userknownhostsfile", "globalknownhostsfile"}

// values returns the arguments of a line as the values of its keyword.
func values(keyword string, args []string) []string {
	if slices.Contains(listed, keyword) || slices.Contains(repeated, keyword) {
		return args
	}
	return []string{strings.Join(args, " ")}
}

// aliases are older names of keywords, by those that ssh -G prints.
var aliases = map[string]string{
	"pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms", "hostbasedkeytypes": "hostbasedacceptedalgorithms",
	"challengeresponseauthentication": "kbdinteractiveauthentication", "dsaauthentication": "pubkeyauthentication",
	"identityfile2": "identityfile", "globalknownhostsfile2": "globalknownhostsfile", "userknownhostsfile2": "userknownhostsfile",
}
