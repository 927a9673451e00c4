package api

import "strings"

// Unread is a file of a guest's configuration that has no effect.
type Unread struct {
	File    string `json:"file"`              // below its directory, with the line where there are several: "fstab:3"
	Why     string `json:"why"`               // and what to use instead
	Refuses bool   `json:"refuses,omitempty"` // the guest does not start because of it
}

// Explain folds what has no effect into one line for each reason.
func Explain(list []Unread) (lines []string) {
	var reasons []string
	files := map[string][]string{}
	for _, u := range list {
		if files[u.Why] == nil {
			reasons = append(reasons, u.Why)
		}
		files[u.Why] = append(files[u.Why], u.File)
	}
	for _, why := range reasons {
		lines = append(lines, strings.Join(files[why], ", ")+": "+why)
	}
	return lines
}

// Refusing are those because of which the guest does not start.
func Refusing(list []Unread) (refusing []Unread) {
	for _, u := range list {
		if u.Refuses {
			refusing = append(refusing, u)
		}
	}
	return refusing
}
