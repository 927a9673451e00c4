package packages

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// Tags of a package's header, in rpm's lib/rpmtag.h.
const (
	tagName    = 1000
	tagVersion = 1001
	tagRelease = 1002
	tagEpoch   = 1003
	tagArch    = 1022
)

// mostText bounds a name, or a part of a version.
const mostText = 256

// readRPM reads rpmdb.sqlite, whose table Packages has the header of each package. Of
// several with one name, such as kernels, the newest counts.
func readRPM(data []byte) (Set, error) {
	long := Set{}
	count := map[string]int{} // packages, by architecture
	native := ""
	whole := readTable(data, "Packages", func(columns [][]byte) {
		name, version, arch := readHeader(columns[len(columns)-1])
		if name == "" || version == "" || arch == "" { // gpg-pubkey has no architecture
			return
		}
		if arch != "noarch" {
			if count[arch]++; count[arch] > count[native] {
				native = arch
			}
			name += ":" + arch
		}
		if had := long[name]; had == "" || RPM.Compare(had, version) < 0 {
			long[name] = version
		}
	})
	if !whole {
		return nil, errors.New("it is not a SQLite database, or a damaged one")
	}
	return short(long, native), nil
}

// readHeader returns the name, version and architecture in the header of a package: the
// number of its tags, the length of their data, the tags (number, type, offset, count), the
// data.
func readHeader(b []byte) (name, version, arch string) {
	var values [tagArch - tagName + 1][]byte
	tags := number(b, 0, 4)
	for i := range tags {
		tag, at := number(b, 8+16*i, 4)-tagName, 8+16*tags+number(b, 16+16*i, 4)
		if at > len(b) {
			return "", "", ""
		}
		if tag >= 0 && tag < len(values) {
			values[tag] = b[at:]
		}
	}
	if version = text(values[tagVersion-tagName]) + "-" + text(values[tagRelease-tagName]); len(version) == 1 {
		version = ""
	}
	if epoch := number(values[tagEpoch-tagName], 0, 4); epoch >= 0 {
		version = strconv.Itoa(epoch) + ":" + version
	}
	return text(values[0]), version, text(values[tagArch-tagName])
}

// text returns what is before a NUL.
func text(b []byte) string {
	n := bytes.IndexByte(b[:min(len(b), mostText)], 0)
	return string(b[:max(0, n)])
}

// compareLabels is rpm's rpmvercmp: stretches of digits and of letters are compared, and
// what separates them is not.
func compareLabels(a, b string) int {
	for {
		for class(a) == separator {
			a = a[1:]
		}
		for class(b) == separator {
			b = b[1:]
		}
		kind := class(a)
		if c := kind - class(b); c != 0 || kind == end {
			return c
		}
		i, j := 1, 1
		for ; kind >= letter && class(a[i:]) == kind; i++ {
		}
		for ; kind >= letter && class(b[j:]) == kind; j++ {
		}
		compare := strings.Compare
		if kind == digit {
			compare = compareDigits
		}
		if c := compare(a[:i], b[:j]); c != 0 {
			return c
		}
		a, b = a[i:], b[j:]
	}
}

// What a label begins with, in rpm's order: a tilde is older than the end, and a caret newer
// than it, but older than anything else.
const (
	separator = iota
	tilde
	end
	caret
	letter
	digit
)

func class(label string) int {
	if label == "" {
		return end
	}
	switch c := label[0]; {
	case c == '~':
		return tilde
	case c == '^':
		return caret
	case c >= '0' && c <= '9':
		return digit
	case c|0x20 >= 'a' && c|0x20 <= 'z':
		return letter
	}
	return separator
}
