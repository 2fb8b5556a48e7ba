package step

import "context"

// Refusal is why a service would not do what a call asks for, as things stand: said before anything runs.
type Refusal struct {
	Call   int    // which of the calls that were asked about
	Input  string // of that call which is to blame
	Why    string // a sentence without its full stop
	Advice string // what to change, a sentence
}

// Foresee looks at all calls of one cluster that are known before it begins, and gives one that the service would refuse: for
// what others have, for what two of the calls want, or for what they ask for. Nil if there is none. Calls of other services are
// passed over. It changes nothing, and promises nothing: things may have changed when the calls are made.
type Foresee func(ctx context.Context, calls []Call) (*Refusal, error)
