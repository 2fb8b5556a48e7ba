package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Client speaks HTTP with the engine's file servers. Over https it trusts the pinned root only and shows the machine's certificate;
// over http nothing is trusted, which suits what is verified by digest.
func (id *Identity) Client() (*http.Client, error) {
	pin, err := ParsePin(id.Pin)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	dialTLS := func(ctx context.Context, network, address string) (net.Conn, error) {
		cfg, err := pin.tlsConfig(address, time.Now)
		if err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.cert.Load(), nil }
		conn, err := (&tls.Dialer{NetDialer: &dialer, Config: cfg}).DialContext(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("cannot connect to %s: %w", address, err)
		}
		return conn, nil
	}
	return &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, DialTLSContext: dialTLS, ResponseHeaderTimeout: answerTimeout, DisableCompression: true, MaxIdleConnsPerHost: 1,
	}}, nil
}
