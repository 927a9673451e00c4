package api

// Usage is what running guests use of their limits.
type Usage struct {
	Guests []GuestUsage `json:"guests"` // by context
}

// GuestUsage has the counters of one guest.
type GuestUsage struct {
	Name     string    `json:"name"`
	Context  int       `json:"context"`
	Counters []Counter `json:"counters"`
}

// Counter is what a guest uses of a resource. A field is nil if the host does not count
// it; Soft and Hard also if there is no limit.
type Counter struct {
	Resource string `json:"resource"`
	Bytes    bool   `json:"bytes,omitempty"` // else a number; of cpu, thousandths of a processor
	Current  *int64 `json:"current,omitempty"`
	Peak     *int64 `json:"peak,omitempty"`
	Soft     *int64 `json:"soft,omitempty"`
	Hard     *int64 `json:"hard,omitempty"`
	// Hits is how often the guest was held at the limit, or refused.
	Hits *int64 `json:"hits,omitempty"`
}
