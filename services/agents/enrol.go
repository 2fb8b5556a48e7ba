package agents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"joist/pki/enrol"
)

// enrol answers one enrolment request. Whatever the answer grants is durable in the site's journal before it is given.
func (g *Gateway) enrol(w http.ResponseWriter, r *http.Request) {
	reply, err := g.consider(w, r)
	if err == nil {
		err = writeJSON(w, reply)
	}
	g.answer(w, r, err)
}

func (g *Gateway) consider(w http.ResponseWriter, r *http.Request) (enrol.Reply, error) {
	ctx := r.Context()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, enrol.MaxRequest))
	if err != nil {
		return enrol.Reply{}, &statusError{http.StatusBadRequest, "cannot read the enrolment: " + err.Error()}
	}
	select {
	case g.enrols <- struct{}{}:
	case <-ctx.Done():
		return enrol.Reply{}, ctx.Err()
	}
	machine, req, proven, err := g.prove(ctx, r, body)
	<-g.enrols
	var proof *enrol.ProofError
	if errors.As(err, &proof) {
		g.notice(r, NoticeRefused, machine, proof.Error())
		return enrol.Refusal(proof, g.cfg.Now()), nil
	}
	if err != nil {
		return enrol.Reply{}, err
	}
	d, err := g.decide(ctx, machine, proven)
	if err != nil {
		return enrol.Reply{}, err
	}
	if d.Outcome == enrol.Refuse {
		g.notice(r, NoticeRefused, machine, d.Message)
	}
	reply := d.Reply(machine, proven.Fingerprint, g.cfg.Now())
	if d.Outcome != enrol.Accept && d.Outcome != enrol.Same {
		return reply, nil
	}
	if len(req.Facts) > 0 {
		if err := g.cfg.Site.Facts(ctx, machine, req.Facts); err != nil {
			return enrol.Reply{}, fmt.Errorf("cannot keep the facts of %s: %w", machine, err)
		}
	}
	reply.Root = g.cfg.Root
	reply.Certificate, err = g.cfg.Signer.Sign(ctx, Certify{
		Identity: enrol.Identity{Node: machine, Incarnation: proven.Incarnation}, CSR: req.CSR, Boot: proven.Boot, Key: proven.Key,
	})
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot issue the certificate of %s: %w", machine, err)
	}
	return reply, nil
}

// prove checks that the request belongs to this connection and its key.
func (g *Gateway) prove(ctx context.Context, r *http.Request, body []byte) (machine string, req enrol.Request, p enrol.Proven, err error) {
	if r.TLS == nil {
		return "", req, p, &statusError{http.StatusBadRequest, "enrolment needs TLS"}
	}
	if req, err = enrol.ParseRequest(body); err != nil {
		return "", req, p, &statusError{http.StatusBadRequest, err.Error()}
	}
	binding, err := enrol.BindingOf(*r.TLS)
	if err != nil {
		return "", req, p, &statusError{http.StatusBadRequest, err.Error()}
	}
	machine, secret, err := g.cfg.Site.Boot(ctx, req.Boot)
	if err != nil {
		return "", req, p, fmt.Errorf("cannot look up the boot id: %w", err)
	}
	p, err = req.Verify(binding, secret)
	return machine, req, p, err
}

// decide takes the decision on the machine's state as it is in the journal, and acts on what it changed.
func (g *Gateway) decide(ctx context.Context, machine string, p enrol.Proven) (enrol.Decision, error) {
	if machine == "" {
		return enrol.Decide(enrol.View{}, p, g.cfg.Now()), nil
	}
	answers := g.probe(ctx, machine, p.Key)
	var d enrol.Decision
	_, err := g.cfg.Site.Update(ctx, machine, func(m enrol.Machine) []enrol.Event {
		d = enrol.Decide(enrol.View{Machine: m, Answers: answers != "" && answers == m.Current}, p, g.cfg.Now())
		return d.Events
	})
	if err != nil {
		return enrol.Decision{}, fmt.Errorf("cannot record the enrolment of %s: %w", machine, err)
	}
	if len(d.Events) > 0 {
		g.Refresh(machine)
	}
	return d, nil
}
