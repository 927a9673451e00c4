package packages

import "strings"

// Compare compares two versions of a package, [EPOCH:]UPSTREAM[-REVISION]: it is negative
// if a is older than b. It follows deb-version(7). Of apk's versions, those before a release
// (1.0_rc1) become Debian's (1.0~rc1), which have the same order.
func (t Tool) Compare(a, b string) int {
	compare := compareLabels
	if t != RPM {
		a, b, compare = beforeRelease.Replace(a), beforeRelease.Replace(b), compareParts
	}
	aEpoch, aUpstream, aRevision := split(a)
	bEpoch, bUpstream, bRevision := split(b)
	if c := compareDigits(aEpoch, bEpoch); c != 0 {
		return c
	}
	if c := compare(aUpstream, bUpstream); c != 0 {
		return c
	}
	return compare(aRevision, bRevision)
}

var beforeRelease = strings.NewReplacer("_alpha", "~alpha", "_beta", "~beta", "_pre", "~pre", "_rc", "~rc")

// split returns the parts of a version.
func split(v string) (epoch, upstream, revision string) {
	if before, after, ok := strings.Cut(strings.TrimSpace(v), ":"); ok {
		epoch, v = before, after
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		v, revision = v[:i], v[i+1:]
	}
	return epoch, v, revision
}

// compareParts compares alternating stretches of non-digits and digits.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		var aText, bText, aDigits, bDigits string
		aText, a = cut(a, false)
		bText, b = cut(b, false)
		if c := compareText(aText, bText); c != 0 {
			return c
		}
		aDigits, a = cut(a, true)
		bDigits, b = cut(b, true)
		if c := compareDigits(aDigits, bDigits); c != 0 {
			return c
		}
	}
	return 0
}

// cut returns the leading digits, or the leading other characters, and the rest.
func cut(s string, digits bool) (head, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}

// compareText compares by characters: a tilde comes before the end, the end before
// letters, letters before all else.
func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := rank(a, i) - rank(b, i); c != 0 {
			return c
		}
	}
	return 0
}

func rank(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'A' && s[i] <= 'Z', s[i] >= 'a' && s[i] <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
