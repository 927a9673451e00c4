package sshconfig

import "strings"

// matchPattern reports whether s matches a pattern with * and ?.
func matchPattern(s, pattern string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}

// matchList reports whether s matches one of several patterns and none of those with "!".
func matchList(s string, patterns []string) bool {
	matched := false
	for _, p := range patterns {
		not, negated := strings.CutPrefix(p, "!")
		switch {
		case negated && matchPattern(s, not):
			return false
		case !negated && matchPattern(s, p):
			matched = true
		}
	}
	return matched
}

// matchCommas is matchList for patterns with commas between them, in any case.
func matchCommas(s, patterns string) bool {
	return matchList(strings.ToLower(s), strings.Split(strings.ToLower(patterns), ","))
}

// signature tells which Host and Match lines are about a host: two hosts with the same
// signature have the same settings, unless files.dependent is set.
func signature(host string, lines []line) string {
	var b strings.Builder
	var walk func([]line)
	bit := func(yes bool) {
		if yes {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	walk = func(lines []line) {
		for _, l := range lines {
			switch l.keyword {
			case "include":
				walk(l.included)
			case "host":
				bit(matchList(host, l.args))
			case "match":
				for _, c := range criteria(l.args) {
					if c.name == "host" || c.name == "originalhost" {
						bit(matchCommas(host, c.value))
					}
				}
			}
		}
	}
	walk(lines)
	return b.String()
}

// criterion is one condition of a Match line.
type criterion struct {
	name, value string
	negated     bool
}

// criteria splits the arguments of a Match line: "host a,b !user c", or with "=".
func criteria(args []string) []criterion {
	var list []criterion
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		c := criterion{name: strings.ToLower(name), value: value}
		c.name, c.negated = strings.CutPrefix(c.name, "!")
		switch c.name {
		case "all", "canonical", "final":
		default:
			if !has && i+1 < len(args) {
				i++
				c.value = args[i]
			}
		}
		list = append(list, c)
	}
	return list
}
