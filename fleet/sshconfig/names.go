package sshconfig

import "strings"

// Names returns the hosts that a configuration names one by one, in its order: those
// of its Host lines without wildcards. left names what was passed over, with its
// place.
func (r *Resolver) Names(file string) (names, left []string, err error) {
	p, err := r.paths()
	if err != nil {
		return nil, nil, err
	}
	f, err := p.read(file)
	if err == nil {
		err = f.err
	}
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	var walk func(lines []line)
	walk = func(lines []line) {
		for _, l := range lines {
			switch l.keyword {
			case "include":
				walk(l.included)
			case "match":
				left = append(left, l.place+": Match "+strings.Join(l.args, " ")+": names no host")
			case "host":
				for _, name := range l.args {
					switch {
					case strings.ContainsAny(name, "*?!"):
						if name != "*" {
							left = append(left, l.place+": Host "+name+": a pattern, whose settings are in the hosts that match it")
						}
					case !seen[name]:
						seen[name] = true
						names = append(names, name)
					}
				}
			}
		}
	}
	walk(f.lines)
	return names, left, nil
}
