package packages

import "bytes"

// Merge returns the database of a guest for another image: paragraphs that the guest has
// as the image was had them become those that the image is has, and all others stay the
// guest's. It merges the databases of dpkg and apk, and apt's extended_states.
func Merge(was, guest, is []byte) []byte {
	before, after := byPackage(was), byPackage(is)
	var merged []byte
	add := func(paragraph []byte) {
		merged = append(append(merged, paragraph...), "\n\n"...)
	}
	seen := map[string]bool{}
	for _, p := range paragraphs(guest) {
		key := packageOf(p)
		if key == "" || seen[key] || !samePackage(p, before[key]) {
			add(p)
		} else if p, there := after[key]; there {
			add(p)
		}
		seen[key] = true
	}
	for _, p := range paragraphs(is) {
		key := packageOf(p)
		if _, had := before[key]; key != "" && !had && !seen[key] {
			add(p)
			seen[key] = true
		}
	}
	return merged
}

// paragraphs returns the parts between blank lines.
func paragraphs(data []byte) (list [][]byte) {
	for data = bytes.Trim(data, "\n"); len(data) > 0; data = bytes.TrimLeft(data, "\n") {
		p, rest, _ := bytes.Cut(data, []byte("\n\n"))
		list, data = append(list, p), rest
	}
	return list
}

func byPackage(data []byte) map[string][]byte {
	all := map[string][]byte{}
	for _, p := range paragraphs(data) {
		if key := packageOf(p); key != "" {
			all[key] = p
		}
	}
	return all
}

// packageOf returns the name and the architecture of a paragraph's package.
func packageOf(p []byte) string {
	name := field(p, "Package: ")
	if name == "" {
		return field(p, "P:")
	}
	return name + ":" + field(p, "Architecture: ")
}

// samePackage reports whether two paragraphs are the same version of a package in the
// same state.
func samePackage(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	for _, prefix := range []string{"Version: ", "V:"} {
		if version := field(a, prefix); version != "" {
			return version == field(b, prefix) && field(a, "Status: ") == field(b, "Status: ")
		}
	}
	return false
}

// field returns the rest of the first line that begins with a prefix.
func field(p []byte, prefix string) string {
	if !bytes.HasPrefix(p, []byte(prefix)) {
		i := bytes.Index(p, []byte("\n"+prefix))
		if i < 0 {
			return ""
		}
		p = p[i+1:]
	}
	line, _, _ := bytes.Cut(p, []byte("\n"))
	return string(line[len(prefix):])
}
