package step

// Signature describes one call that a service offers, as plain data, so that the language's catalogue can be built from
// it without knowing the service. Types are written as packs write them: "fqdn", "list(address)", "map(url)".
type Signature struct {
	Call     string            // operation, "service.verb"
	Inputs   map[string]string // input name to type
	Outputs  map[string]string // output name to type
	Optional []string          // names of the inputs that may be absent, sorted
}
