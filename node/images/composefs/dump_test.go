package composefs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// parseDump reads a tree in the text form of composefs-dump(5), whose lines have to be
// in walk order.
func parseDump(text string) (*Tree, error) {
	var t *Tree
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		path, n, link, err := parseLine(line)
		switch {
		case err != nil:
		case path == "/":
			if t != nil {
				return nil, errors.New("two roots")
			}
			t, err = New(n)
		case t == nil || path[0] != '/':
			err = errors.New("no root before it")
		case link != "":
			err = t.Link(path[1:], strings.TrimPrefix(link, "/"))
		default:
			err = t.Add(path[1:], n)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// parseLine reads one line: an entry, or the target of a hard link.
func parseLine(line string) (path string, n Node, link string, err error) {
	fields := strings.Split(line, " ")
	for len(fields) < 11 { // one asset ends in the middle of a line, and is an image all the same
		fields = append(fields, "")
	}
	number := func(field, base, bits int) uint64 {
		v, e := strconv.ParseUint(fields[field], base, bits)
		err = errors.Join(err, e)
		return v
	}
	optional := func(field int) string {
		if fields[field] == "-" {
			return ""
		}
		s, e := unescape(fields[field])
		err = errors.Join(err, e)
		return s
	}
	if path = optional(0); path == "" {
		return "", n, "", errors.New("no path")
	}
	if mode, ok := strings.CutPrefix(fields[2], "@"); ok {
		fields[2] = mode
		if link = optional(8); link == "" && err == nil {
			err = errors.New("a link to nothing")
		}
		return path, n, link, err
	}
	sec, nsec, _ := strings.Cut(fields[7], ".")
	fields = append(fields, sec, nsec)
	n = Node{
		Size: number(1, 10, 64), Mode: uint32(number(2, 8, 32)) & 0xffff, Nlink: uint32(number(3, 10, 32)),
		UID: uint32(number(4, 10, 32)), GID: uint32(number(5, 10, 32)), Rdev: uint32(number(6, 10, 32)),
		Mtime: int64(number(len(fields)-2, 10, 63)), Nsec: uint32(number(len(fields)-1, 10, 32)),
	}
	if kind := n.Mode & unix.S_IFMT; kind == unix.S_IFREG || kind == unix.S_IFLNK {
		n.Payload, n.Content = optional(8), optional(9)
	}
	if digest := optional(10); digest != "" {
		n.Verity = new([32]byte)
		if b, e := hex.DecodeString(digest); e != nil || copy(n.Verity[:], b) != 32 {
			err = errors.Join(err, errors.New("no digest"), e)
		}
	}
	for _, f := range fields[11 : len(fields)-2] {
		if f == "" {
			continue
		}
		name, value, ok := strings.Cut(f, "=")
		key, e1 := unescape(name)
		val, e2 := unescape(value)
		if err = errors.Join(err, e1, e2); !ok && err == nil {
			err = errors.New("an attribute without =")
		}
		n.Xattrs = slices.DeleteFunc(n.Xattrs, func(x Xattr) bool { return x.Name == key })
		n.Xattrs = append(n.Xattrs, Xattr{key, val})
	}
	return path, n, "", err
}

// unescape undoes the escapes \\, \n, \r, \t and \xNN.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", errors.New("a backslash at the end")
		}
		switch s[i] {
		case '\\', 'n', 'r', 't':
			b.WriteByte(map[byte]byte{'\\': '\\', 'n': '\n', 'r': '\r', 't': '\t'}[s[i]])
		case 'x':
			if i+2 >= len(s) {
				return "", errors.New("an unfinished escape")
			}
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", err
			}
			b.Write(c)
			i += 2
		default:
			return "", fmt.Errorf("the escape \\%c", s[i])
		}
	}
	return b.String(), nil
}
