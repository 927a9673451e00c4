package owners

import "fmt"

// Kind is how a tree's ids differ from those inside the guest.
type Kind string

// Kinds.
const (
	Plain   Kind = "plain"
	UID16   Kind = "uid16"   // the tag is in the upper 16 bits of the user id
	GID16   Kind = "gid16"   // … of the group id
	ID24    Kind = "id24"    // in the upper 8 bits of both: Linux-VServer's default
	Shifted Kind = "shifted" // a multiple of 65536 was added to both
)

// Scheme is how the ids of one tree differ.
type Scheme struct {
	Kind Kind   `json:"kind"`
	Tag  uint32 `json:"tag,omitempty"` // the tag; Shifted: the multiple
}

func (s Scheme) String() string {
	switch s.Kind {
	case UID16:
		return fmt.Sprintf("tag %d in the user ids", s.Tag)
	case GID16:
		return fmt.Sprintf("tag %d in the group ids", s.Tag)
	case ID24:
		return fmt.Sprintf("tag %d in the user and group ids", s.Tag)
	case Shifted:
		return fmt.Sprintf("ids shifted by %d", s.Tag<<16)
	}
	return "plain ids"
}

// inside returns the ids that a file has inside the guest. ok is false if the ids are
// neither plain nor of the scheme.
func (s Scheme) inside(uid, gid uint32) (u, g uint32, ok bool) {
	if uid>>16 == 0 && gid>>16 == 0 {
		return uid, gid, true
	}
	u, g = uid&0xffff, gid&0xffff
	switch s.Kind {
	case UID16:
		ok = uid>>16 == s.Tag && gid>>16 == 0
	case GID16:
		ok = gid>>16 == s.Tag && uid>>16 == 0
	case ID24:
		ok = uid>>16 == s.Tag&0xff00 && gid>>16 == s.Tag&0xff<<8
	case Shifted:
		ok = uid>>16 == s.Tag && gid>>16 == s.Tag
	}
	return u, g, ok
}

// upper is the upper halves of a file's ids.
type upper struct{ uid, gid uint32 }

// guess returns the scheme that fits most files: of the tags that the guest may have
// had, else one that the ids themselves show.
func guess(seen map[upper]int, tags []uint32) Scheme {
	best, most := Scheme{Kind: Plain}, 0
	try := func(s Scheme) {
		n := 0
		for up, count := range seen {
			if _, _, ok := s.inside(up.uid<<16, up.gid<<16); ok && up != (upper{}) {
				n += count
			}
		}
		if n > most {
			best, most = s, n
		}
	}
	for _, tag := range tags {
		for _, kind := range []Kind{ID24, UID16, GID16, Shifted} {
			try(Scheme{kind, tag})
		}
	}
	if most > 0 {
		return best
	}
	for up := range seen {
		switch {
		case up.uid == up.gid:
			try(Scheme{Shifted, up.uid})
		case up.gid == 0 && up.uid&0xff != 0:
			try(Scheme{UID16, up.uid})
		case up.uid == 0 && up.gid&0xff != 0:
			try(Scheme{GID16, up.gid})
		case up.uid&0xff == 0 && up.gid&0xff == 0:
			try(Scheme{ID24, up.uid | up.gid>>8})
		}
	}
	return best
}
