# Signs who the user is, for your page to send to the gateway. Standard library only.
#
#   echo '{"format": "jwt", "claims": {"sub": "user_123"}}' | IDENTITY_SECRET=… ruby sign.rb
#
# Only for the user of your own login session: never an id that came from the page. One secret signs one format.

require "json"
require "openssl"

module Sign
  module_function

  # Format `hmac`. It never expires: prefer user_token where your client can carry one.
  def user_hash(secret, user_id)
    OpenSSL::HMAC.hexdigest("SHA256", secret, real(user_id))
  end

  # Format `karta-v2`: the user confirmed who they are, at this time (Unix seconds) and in this way, such as "mfa".
  def karta_token(secret, user_id, stepped_up_at, aal)
    payload = encoded({ user_id: real(user_id), stepped_up_at: stepped_up_at, aal: aal })
    "v2.#{payload}.#{OpenSSL::HMAC.hexdigest("SHA256", secret, payload)}"
  end

  # Format `jwt`, HS256: the claims (names as strings), with `sub` or `user_id` among them, good for `lifetime` seconds.
  def user_token(secret, claims, now = Time.now.to_i, lifetime = 300)
    real(claims["user_id"] || claims["sub"])
    signed = "#{encoded({ alg: "HS256", typ: "JWT" })}.#{encoded({ **claims, "iat" => now, "exp" => now + lifetime })}"
    "#{signed}.#{base64url(OpenSSL::HMAC.digest("SHA256", secret, signed))}"
  end

  # Refuses what comes out where nobody is signed in.
  def real(user_id)
    raise ArgumentError, "nobody is signed in" if !user_id.is_a?(String) || ["", "undefined", "null", "None"].include?(user_id)

    user_id
  end

  def encoded(value)
    base64url(JSON.generate(value))
  end

  def base64url(bytes)
    [bytes].pack("m0").tr("+/", "-_").delete("=")
  end
end

# A line of JSON in, a token out.
if $PROGRAM_NAME == __FILE__
  secret = ENV.fetch("IDENTITY_SECRET")
  $stdin.set_encoding("UTF-8").each_line do |line|
    asked = JSON.parse(line)
    now = asked.fetch("now", Time.now.to_i)
    puts case asked["format"]
         when "hmac" then Sign.user_hash(secret, asked["user_id"])
         when "karta-v2" then Sign.karta_token(secret, asked["user_id"], now, asked["aal"])
         else Sign.user_token(secret, asked["claims"], now)
         end
  end
end
