package ansible

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Aliases make a file's values larger than its text: nine lines of them can stand for
// a billion. They may make them maxGrowth times as large, or as large as smallSize.
const (
	maxGrowth = 10
	smallSize = 10000
)

// Values reads values of YAML as Ansible does, by the rules of YAML 1.1: yes and
// off are booleans, 0644 is octal. All values of one file share one Values.
type Values struct {
	nodes    int // that were read
	limit    int
	problems *[]Problem
}

// NewValues returns a reader of values that adds what is wrong to problems.
func NewValues(problems *[]Problem) *Values { return &Values{problems: problems, limit: smallSize} }

// Expect lets the reader read what is below a node of the file.
func (r *Values) Expect(n *yaml.Node) *Values {
	if r.limit < 0 {
		return r
	}
	r.limit += maxGrowth * size(n)
	return r
}

// size returns the number of nodes below a node, each alias being one.
func size(n *yaml.Node) int {
	total := 1
	for _, inner := range n.Content {
		total += size(inner)
	}
	return total
}

// Var reads the value of a variable whose name is at a node.
func (r *Values) Var(name, value *yaml.Node) Var {
	v := Var{Value: r.read(value, 0), Pos: at(name)}
	if n := target(value); n.Kind == yaml.ScalarNode && !isVault(n) {
		v.Text = n.Value
	}
	return v
}

// Mapping reads a mapping of variables. It returns false, and reports it, if the
// node is none; nothing at all is an empty mapping.
func (r *Values) Mapping(what string, n *yaml.Node) (map[string]Var, bool) {
	n = target(n)
	vars := map[string]Var{}
	switch {
	case isNull(n):
	case n.Kind != yaml.MappingNode:
		*r.problems = append(*r.problems, Problem{Pos: at(n), Msg: fmt.Sprintf("%s: want a mapping of names to values, have %s", what, kind(n))})
		return nil, false
	default:
		r.pairs(n, 0, func(k, v *yaml.Node) { vars[k.Value] = r.Var(k, v) })
	}
	return vars, true
}

func at(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isVault(n *yaml.Node) bool {
	return n.Tag == "!vault" || n.Tag == "!vault-encrypted" || isSealed(n)
}

// isSealed reports whether a value is marked as encrypted with age, which Ansible does
// not know.
func isSealed(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!age" }

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && scalar(n) == nil && !isVault(n)
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if isNull(n) {
		return "nothing"
	}
	return strconv.Quote(short(n.Value))
}

// short returns the beginning of a text: what was named by mistake may hold secrets.
func short(s string) string {
	text, _, more := strings.Cut(s, "\n")
	if len(text) > 40 {
		text, more = strings.ToValidUTF8(text[:40], ""), true
	}
	if more {
		text += "…"
	}
	return text
}

func (r *Values) problem(n *yaml.Node, warning bool, format string, args ...any) {
	*r.problems = append(*r.problems, Problem{Pos: at(n), Msg: fmt.Sprintf(format, args...), Warning: warning})
}

// exhausted reports whether a value is nested too deeply, or all values together
// are too large. The first one is a problem.
func (r *Values) exhausted(n *yaml.Node, depth int) bool {
	if r.nodes <= r.limit && depth <= 100 {
		return false
	}
	if r.limit >= 0 {
		r.problem(n, false, "the values of this file are nested too deeply, or aliases make them too large")
	}
	r.limit = -1 // nothing more is read
	return true
}

func (r *Values) read(n *yaml.Node, depth int) any {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.nodes++; r.exhausted(n, depth) {
		return nil
	}
	if n.Style&yaml.TaggedStyle != 0 && !isVault(n) && !slices.Contains(knownTags, n.Tag) {
		r.problem(n, false, "the tag %s is not read", n.Tag)
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			list = append(list, r.read(item, depth+1))
		}
		return list
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		r.pairs(n, depth, func(k, v *yaml.Node) { m[keyText(k)] = r.read(v, depth+1) })
		if len(m) == 1 { // as ansible-inventory prints what has a tag
			if _, vault := m["__ansible_vault"]; vault {
				return Vault{}
			}
			if text, unsafe := m["__ansible_unsafe"]; unsafe {
				return text
			}
		}
		return m
	}
	switch {
	case isSealed(n):
		return Sealed{Armored: n.Value, Pos: at(n)}
	case isVault(n):
		return Vault{}
	}
	return scalar(n)
}

// "!unsafe" marks texts that are not to be taken for templates.
var knownTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!unsafe"}

// pairs calls each for the pairs of a mapping. Those that "<<" merges come first,
// so that the mapping's own win; of one key given twice the last wins, as in
// Ansible, with a warning.
func (r *Values) pairs(n *yaml.Node, depth int, each func(k, v *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := target(n.Content[i]), target(n.Content[i+1])
		if k.Tag != "!!merge" {
			continue
		}
		maps := []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			maps = slices.Clone(v.Content)
			slices.Reverse(maps) // the first one wins
		}
		for _, m := range maps {
			if m = target(m); m.Kind != yaml.MappingNode {
				r.problem(m, false, "<<: want a mapping or a list of mappings to merge, have %s", kind(m))
				continue
			}
			if r.nodes += 1 + len(m.Content)/2; r.exhausted(m, depth) {
				return
			}
			r.pairs(m, depth+1, each)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := target(n.Content[i]), n.Content[i+1]
		switch {
		case k.Tag == "!!merge":
		case k.Kind != yaml.ScalarNode:
			r.problem(k, false, "a key must be text")
			if k.Kind == yaml.MappingNode {
				(*r.problems)[len(*r.problems)-1].Hint = "put a value that begins with {{ in quotes"
			}
		default:
			if seen[k.Value] {
				r.problem(n.Content[i], true, "%q is given twice: the last one wins, as in Ansible", k.Value)
			}
			seen[k.Value] = true
			each(k, v)
		}
	}
}

// keyText returns a key as Ansible prints it: yes is "true".
func keyText(k *yaml.Node) string {
	switch v := scalar(k).(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case nil:
		return "null"
	}
	return k.Value
}

var (
	yamlInt   = regexp.MustCompile(`^([-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+)$`)
	yamlFloat = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)$`)
	yamlBool  = map[string]bool{
		"yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true, "true": true, "True": true, "TRUE": true,
		"no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false, "false": false, "False": false, "FALSE": false,
	}
)

// scalar returns the value of a scalar by the rules of YAML 1.1 as PyYAML has
// them. A number that is too large stays text.
func scalar(n *yaml.Node) any {
	tagged := n.Style&yaml.TaggedStyle != 0
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch {
	case tagged && (n.Tag == "!!str" || n.Tag == "!unsafe"), quoted && !tagged:
		return n.Value
	}
	s := n.Value
	if b, ok := yamlBool[s]; ok {
		return b
	}
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1)
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1)
	case ".nan", ".NaN", ".NAN":
		return math.NaN()
	}
	if yamlInt.MatchString(s) {
		if i, ok := parseInt(s); ok {
			return i
		}
		return s
	}
	if yamlFloat.MatchString(s) {
		if f, ok := parseFloat(s); ok {
			return f
		}
	}
	if tagged && n.Tag == "!!float" { // of JSON, which needs no dot
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	}
	return s
}

// Scalar returns the value of a text without quotes.
func Scalar(s string) any { return scalar(&yaml.Node{Kind: yaml.ScalarNode, Value: s}) }

func cutSign(s string) (sign int64, rest string) {
	switch {
	case strings.HasPrefix(s, "-"):
		return -1, s[1:]
	case strings.HasPrefix(s, "+"):
		return 1, s[1:]
	}
	return 1, s
}

func parseInt(s string) (int64, bool) {
	sign, s := cutSign(strings.ReplaceAll(s, "_", ""))
	base := 10
	switch {
	case strings.HasPrefix(s, "0b"):
		s, base = s[2:], 2
	case strings.HasPrefix(s, "0x"):
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	case strings.Contains(s, ":"): // 1:30 is 90: minutes and seconds
		total, err := int64(0), error(nil)
		for part := range strings.SplitSeq(s, ":") {
			var n int64
			if n, err = strconv.ParseInt(part, 10, 64); err != nil || total > math.MaxInt64/60-60 || n > math.MaxInt64/60 {
				return 0, false
			}
			total = total*60 + n
		}
		return sign * total, true
	}
	n, err := strconv.ParseInt(s, base, 64)
	return sign * n, err == nil
}

func parseFloat(s string) (float64, bool) {
	sign, s := cutSign(strings.ReplaceAll(s, "_", ""))
	total := 0.0
	for part := range strings.SplitSeq(s, ":") {
		f, err := strconv.ParseFloat(part, 64)
		if err != nil {
			return 0, false
		}
		total = total*60 + f
	}
	return float64(sign) * total, true
}
