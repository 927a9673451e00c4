package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// A host's answers are believed about that host only, and only if they can be
// true: a name or an ID goes into requests to other hosts, a number is added to
// theirs, and a list without end would fill the controller's memory.

// Bounds of one answer. A message could otherwise be millions of guests of three
// bytes each, and take two hundred times its size in memory.
const (
	maxItems = 50_000    // of one list: there are 49,150 contexts
	maxAll   = 2_000_000 // values in all
	maxText  = 64 << 10
	maxDepth = 20
)

var (
	imageID     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	imageKey    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	imageSource = regexp.MustCompile(`^[a-z0-9._:/\[\]-]{1,400}@sha256:[0-9a-f]{64}$`)
	guestName   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)
	fileName    = regexp.MustCompile(`^[a-zA-Z0-9/_.-]{1,255}$`)
	word        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,127}$`)
)

// decode returns a host's answer once it is decoded and validated.
func decode[R any](b []byte) (answer R, err error) {
	if err = checkSize(b); err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err == nil {
		err = validate(&answer)
	}
	if err != nil {
		var none R
		return none, err
	}
	return answer, nil
}

// checkSize refuses JSON that would be larger in memory than an answer may be. Other
// mistakes are left to the decoder.
func checkSize(b []byte) error {
	var items [maxDepth]int // of the lists not yet closed
	depth, all, text := 0, 0, -1
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case text >= 0 && c == '\\':
			i++
		case text >= 0 && c == '"':
			if i-text > maxText {
				return fmt.Errorf("a text of more than %d KiB", maxText>>10)
			}
			text = -1
		case text >= 0:
		case c == '"':
			text = i
		case c == '[' || c == '{':
			if depth++; depth == maxDepth {
				return fmt.Errorf("%d lists within each other", maxDepth)
			}
			items[depth] = 1
		case c == ']' || c == '}':
			depth = max(depth-1, 0)
		case c == ',':
			all++
			items[depth]++
			if items[depth] > maxItems {
				return fmt.Errorf("a list of more than %d", maxItems)
			}
			if all > maxAll {
				return fmt.Errorf("more than %d values", maxAll)
			}
		}
	}
	return nil
}

// validate returns an error that names what cannot be true in an answer.
func validate(answer any) error {
	switch a := answer.(type) {
	case *api.State:
		return validState(a)
	case *api.Stat:
		return validStat(a)
	case *api.Check:
		for _, r := range a.Rows {
			if r.Verdict != api.Yes && r.Verdict != api.No && r.Verdict != api.Unknown {
				return fmt.Errorf("check %q: verdict %q", r.Name, r.Verdict)
			}
		}
	case *api.Installed:
		for _, name := range append([]string{a.Path}, a.Links...) {
			if !fileName.MatchString(name) {
				return fmt.Errorf("file %q", name)
			}
		}
	case *api.LeaseAnswer:
		return validReverted(a.Reverted)
	case *api.Confirmed:
		return validReverted(a.Reverted)
	case *api.Usage:
		for _, g := range a.Guests {
			if !guestName.MatchString(g.Name) || g.Context < 0 || g.Context > api.MaxContext {
				return fmt.Errorf("guest %q of context %d", g.Name, g.Context)
			}
		}
	case *api.SentGuest:
		if a.Image != "" && !imageID.MatchString(a.Image) {
			return fmt.Errorf("image %q", a.Image)
		}
	case *api.StaleAnswer:
		for _, g := range a.Guests {
			if !guestName.MatchString(g.Name) || g.Image != "" && !imageID.MatchString(g.Image) || g.Runs != "" && !imageID.MatchString(g.Runs) {
				return fmt.Errorf("guest %q of image %q", g.Name, g.Image)
			}
			if len(g.Processes) > api.MaxStale || len(g.Packages) > api.MaxStale || len(g.Shadows) > api.MaxStale {
				return fmt.Errorf("guest %q: more than %d entries", g.Name, api.MaxStale)
			}
			if g.Behind < 0 || g.Hidden < len(g.Shadows) || g.Attributes < 0 || g.Attributes > g.Hidden {
				return fmt.Errorf("guest %q: %d of %d files, %d with attributes", g.Name, len(g.Shadows), g.Hidden, g.Attributes)
			}
			for _, f := range g.Shadows {
				if f.Kind != api.ShadowChanged && f.Kind != api.ShadowRemoved && f.Kind != api.ShadowAttributes {
					return fmt.Errorf("guest %q: file %q is %q", g.Name, f.Path, f.Kind)
				}
			}
		}
	case *api.Hashified:
		for _, g := range a.Guests {
			if !guestName.MatchString(g.Name) || g.Files < 0 || g.Bytes < 0 || g.Added < 0 {
				return fmt.Errorf("guest %q with %d files of %d bytes, %d of them new", g.Name, g.Files, g.Bytes, g.Added)
			}
		}
	case *api.Volumes:
		for _, v := range a.Volumes {
			err := setting.ValidVolume(v.Name)
			if err != nil || v.Bytes < 0 || slices.ContainsFunc(v.Guests, func(name string) bool { return !guestName.MatchString(name) }) {
				return fmt.Errorf("volume %q of %d bytes, guests %q", v.Name, v.Bytes, v.Guests)
			}
		}
	case *api.Generations:
		for _, g := range a.Kept {
			if !guestName.MatchString(g.Guest) || !word.MatchString(g.Run) {
				return fmt.Errorf("guest %q, run %q", g.Guest, g.Run)
			}
		}
	case *api.Exit:
		if a.Status < 0 || a.Status > 255 {
			return fmt.Errorf("exit status %d", a.Status)
		}
	case *api.Collected:
		for _, img := range a.Images {
			if !imageID.MatchString(img.ID) {
				return fmt.Errorf("image ID %q", img.ID)
			}
		}
		if a.Objects < 0 || a.Bytes < 0 {
			return fmt.Errorf("%d objects of %d bytes", a.Objects, a.Bytes)
		}
	case *api.Arrived:
		if a.Contents < 0 {
			return fmt.Errorf("%d contents", a.Contents)
		}
	case *api.StoreCheck:
		for _, d := range a.Damaged {
			for _, id := range d.Images {
				if !imageID.MatchString(id) {
					return fmt.Errorf("image ID %q", id)
				}
			}
		}
	case *api.RemovedImage:
		if a.ID != "" && !imageID.MatchString(a.ID) {
			return fmt.Errorf("image ID %q", a.ID)
		}
	case *api.StepResult:
		if a.Image == nil {
			return errors.New("it does not say which image it built")
		}
		return validResult(*a)
	case *api.ApplyResult:
		for i, r := range a.Results {
			if err := validResult(r); err != nil {
				return fmt.Errorf("result of step %d: %w", i+1, err)
			}
		}
	}
	return nil
}

func validState(s *api.State) error {
	h := s.Host
	switch {
	case h.Arch != "" && !word.MatchString(h.Arch):
		return fmt.Errorf("architecture %q", h.Arch)
	case h.CPUs < 0 || h.CPUs > 1<<16 || h.MemoryBytes < 0:
		return fmt.Errorf("%d processors and %d bytes of memory", h.CPUs, h.MemoryBytes)
	}
	for _, list := range [][]string{h.Controllers, h.Methods} {
		for _, name := range list {
			if !word.MatchString(name) {
				return fmt.Errorf("controller or method %q", name)
			}
		}
	}
	seen := make(map[string]bool, len(s.Guests))
	for i := range s.Guests {
		g := &s.Guests[i]
		err := validGuest(&g.Guest)
		switch {
		case err != nil:
		case seen[g.Name]:
			err = errors.New("it is there twice")
		case !word.MatchString(string(g.Status)):
			err = fmt.Errorf("status %q", g.Status)
		case g.InitPID < 0 || g.Processes < 0:
			err = fmt.Errorf("%d processes, the first is %d", g.Processes, g.InitPID)
		case slices.ContainsFunc(g.Hooks, func(phase string) bool { return !slices.Contains(setting.HookPhases, phase) }):
			err = fmt.Errorf("hooks %q", g.Hooks)
		case g.Runs != nil:
			err = validGuest(g.Runs)
		}
		if err != nil {
			return fmt.Errorf("guest %q: %w", g.Name, err)
		}
		seen[g.Name] = true
	}
	for i := range s.Images {
		if err := validImage(&s.Images[i]); err != nil {
			return err
		}
	}
	return nil
}

func validGuest(g *api.Guest) error {
	switch {
	case !guestName.MatchString(g.Name):
		return fmt.Errorf("name %q", g.Name)
	case g.Context < 0 || g.Context > api.MaxContext:
		return fmt.Errorf("context %d", g.Context)
	case g.Image != "" && !imageID.MatchString(g.Image):
		return fmt.Errorf("image %q", g.Image)
	}
	return g.Check()
}

func validImage(m *api.Image) error {
	switch {
	case !imageID.MatchString(m.ID):
		return fmt.Errorf("image ID %q", m.ID)
	case m.Key != "" && !imageKey.MatchString(m.Key):
		return fmt.Errorf("image %s: key %q", m.ID, m.Key)
	case m.Bytes < 0 || m.Files < 0:
		return fmt.Errorf("image %s: %d bytes in %d files", m.ID, m.Bytes, m.Files)
	case m.Source != "" && !imageSource.MatchString(m.Source):
		return fmt.Errorf("image %s: source %q", m.ID, m.Source)
	}
	return nil
}

// maxNumber bounds the times and numbers of a host, so that those of a
// fleet can be added: 300 years of processors, 4 EiB in all of 10,000 hosts.
const maxNumber = math.MaxInt64 / 10_000

func validStat(s *api.Stat) error {
	for _, r := range s.Rows {
		switch {
		case r.Context < 0 || r.Context > api.MaxContext:
			return fmt.Errorf("context %d", r.Context)
		case r.Context != 0 && !guestName.MatchString(r.Name):
			return fmt.Errorf("guest %q", r.Name)
		case r.Processes < 0 || r.Processes > 1<<22: // PID_MAX_LIMIT
			return fmt.Errorf("guest %q: %d processes", r.Name, r.Processes)
		case r.RSS > maxNumber || r.User < 0 || r.Sys < 0 || r.Uptime < 0 || max(r.User, r.Sys) > time.Duration(math.MaxInt64/2):
			return fmt.Errorf("guest %q: %d bytes, times %d, %d, %d", r.Name, r.RSS, r.User, r.Sys, r.Uptime)
		}
	}
	return nil
}

func validResult(r api.StepResult) error {
	switch r.Outcome {
	case api.Changed, api.Unchanged, api.Failed, api.Skipped:
	default:
		return fmt.Errorf("outcome %q", r.Outcome)
	}
	if r.Took < 0 {
		return fmt.Errorf("it took %d ns", r.Took)
	}
	if ran := r.Ran; ran != nil && (ran.Status < 0 || ran.Status > 255 || max(len(ran.Stdout), len(ran.Stderr)) > api.MaxOutput) {
		return fmt.Errorf("exit status %d with %d bytes of output", ran.Status, len(ran.Stdout)+len(ran.Stderr))
	}
	if f := r.File; f != nil && (f.Bytes < 0 || len(f.Kind) > 16 || f.Digest != "" && !imageID.MatchString(f.Digest)) {
		return fmt.Errorf("a file of %d bytes, kind %q, digest %q", f.Bytes, f.Kind, f.Digest)
	}
	if r.Image != nil {
		return validImage(r.Image)
	}
	return nil
}

func validReverted(r *api.Reverted) error {
	if r == nil {
		return nil
	}
	if !word.MatchString(r.Run) {
		return fmt.Errorf("run %q", r.Run)
	}
	for _, name := range r.Guests {
		if !guestName.MatchString(name) {
			return fmt.Errorf("guest %q", name)
		}
	}
	return nil
}
