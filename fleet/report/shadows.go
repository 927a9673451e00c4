package report

import (
	"fmt"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// Shadows are the files that a guest has of its own where its next image differs from the
// one that it has.
type Shadows struct {
	// Files are the first of Total, databases of packages first.
	Files      []Shadow `json:"files,omitempty"`
	Total      int      `json:"total"`
	Attributes int      `json:"attributes,omitempty"` // files of Total that have their data from the image
	// Packages that the guest installed or upgraded itself, and that the image changes: the
	// first of PackagesTotal.
	Packages      []api.StalePackage `json:"packages,omitempty"`
	PackagesTotal int                `json:"packagesTotal,omitempty"`
	Problem       string             `json:"problem,omitempty"` // why they are not known
}

// Shadow is a file of a guest's own that hides one of its image, and what becomes of it.
type Shadow struct {
	api.Shadow
	Do string `json:"do"` // as in the inventory's shadowed
}

// ShadowsOf returns what a host says of a guest with these rules; nil if it hides nothing.
func ShadowsOf(g api.StaleGuest, rules string) *Shadows {
	if g.Hidden == 0 && g.Problem == "" {
		return nil
	}
	s := &Shadows{Total: g.Hidden, Attributes: g.Attributes, Packages: g.Packages, PackagesTotal: g.Behind, Problem: g.Problem}
	for _, f := range g.Shadows {
		do := setting.ShadowKeep
		if !f.Stays {
			do = setting.ShadowAction(rules, f.Path)
		}
		if do == setting.ShadowRebase && f.Kind != api.ShadowChanged {
			do = setting.ShadowKeep
		}
		s.Files = append(s.Files, Shadow{f, do})
	}
	return s
}

// fewShadows is the number of files that Lines names.
const fewShadows = 3

// Lines describes them in a few lines, for people.
func (s *Shadows) Lines() []string {
	var lines, names []string
	if s.Problem != "" {
		lines = append(lines, "what it hides is not known: "+s.Problem)
	}
	databases := 0
	for _, f := range s.Files {
		if program := setting.PackageDatabase(f.Path); program != "" && f.Kind != api.ShadowAttributes {
			databases++
			lines = append(lines, "has its own "+program+" database, "+f.Path+": "+shadowWords[f.Do])
		} else if f.Kind != api.ShadowAttributes && len(names) < fewShadows {
			names = append(names, fmt.Sprintf("%s (%s, %s)", f.Path, f.Kind, f.Do))
		}
	}
	if n := s.Total - s.Attributes - databases; n > 0 {
		if n > len(names) {
			names = append(names, "…")
		}
		lines = append(lines, fmt.Sprintf("hides %s that the image changes: %s", count(n, "file"), strings.Join(names, ", ")))
	}
	if s.Attributes > 0 {
		lines = append(lines, "takes the new data of "+count(s.Attributes, "file")+" of which it changed only the owner, mode or times")
	}
	names = nil
	for _, p := range s.Packages[:min(len(s.Packages), fewShadows)] {
		names = append(names, fmt.Sprintf("%s %s (image: %s)", p.Name, p.Has, p.Newer))
	}
	if s.PackagesTotal > len(names) && names != nil {
		names = append(names, "…")
	}
	if names != nil {
		lines = append(lines, fmt.Sprintf("has its own version of %s that the image changes: %s", count(s.PackagesTotal, "package"), strings.Join(names, ", ")))
	}
	return lines
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

var shadowWords = map[string]string{
	setting.ShadowRebase: "merged with the image's",
	setting.ShadowReset:  "put aside, the image's is used",
	setting.ShadowKeep:   "kept, and so wrong about the image's packages",
}

// clean keeps a name on its line, whatever is in it; what is printed is made safe for the
// terminal by package view.
func clean(name string) string { return strings.NewReplacer("\n", "?", "\r", "?").Replace(name) }

// All names each file, and each package, for people who ask for all.
func (s *Shadows) All() string {
	var b strings.Builder
	for _, f := range s.Files {
		do := f.Do
		if f.Kind == api.ShadowAttributes && do == setting.ShadowKeep {
			do = "takes the new data"
		}
		fmt.Fprintf(&b, "%s: %s, %s\n", clean(f.Path), f.Kind, do)
	}
	if more := s.Total - len(s.Files); more > 0 {
		fmt.Fprintf(&b, "and %d more files\n", more)
	}
	for _, p := range s.Packages {
		fmt.Fprintf(&b, "package %s: %s (image: %s)\n", clean(p.Name), clean(p.Has), clean(p.Newer))
	}
	return b.String()
}
