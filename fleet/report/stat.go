package report

// StatRecord is a guest, or the host itself.
type StatRecord struct {
	Host          string  `json:"host"`
	Context       int     `json:"context"` // 0: the host itself
	Name          string  `json:"name"`
	Processes     int     `json:"processes"`
	VSZBytes      uint64  `json:"vszBytes"`
	RSSBytes      uint64  `json:"rssBytes"`
	UserSeconds   float64 `json:"userSeconds"`
	SysSeconds    float64 `json:"sysSeconds"`
	UptimeSeconds float64 `json:"uptimeSeconds"`
	// Traffic since the guest's start; nil where nothing counts it.
	InPackets  *uint64 `json:"inPackets,omitempty"`
	InBytes    *uint64 `json:"inBytes,omitempty"`
	OutPackets *uint64 `json:"outPackets,omitempty"`
	OutBytes   *uint64 `json:"outBytes,omitempty"`
	Result
}

// StatSum is a group of them.
type StatSum struct {
	Group         string  `json:"group"`
	Hosts         int     `json:"hosts"`
	Guests        int     `json:"guests"`
	Processes     int     `json:"processes"`
	VSZBytes      uint64  `json:"vszBytes"`
	RSSBytes      uint64  `json:"rssBytes"`
	UserSeconds   float64 `json:"userSeconds"`
	SysSeconds    float64 `json:"sysSeconds"`
	UptimeSeconds float64 `json:"uptimeSeconds"` // of the oldest
	Host          string  `json:"host"`          // that is missing in the sums; else empty
	Result
}
