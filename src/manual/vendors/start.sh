# start.sh: secrets for this run, a backend, and the gateway in front of it
for name in DOORWARD_ASSERTION_KEY DOORWARD_SESSION_KEY KARTA_SECRET KARTA_STEP_UP_SECRET AGENTIC_TRUST_SECRET \
  AGENTIC_TRUST_JWT_SECRET HALO_SECRET WIDGENT_SECRET WIDGENT_VERIFICATION_SECRET; do
  export "$name=$(doorward secret new 2>/dev/null)"
done
python3 ../../../deploy/examples/python/agent.py 3000 >/dev/null &
doorward run -c doorward.toml >/dev/null &
