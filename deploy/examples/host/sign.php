<?php
// Signs who the user is, for your page to send to the gateway. Needs nothing but PHP 8.
//
//   echo '{"format": "jwt", "claims": {"sub": "user_123"}}' | IDENTITY_SECRET=… php sign.php
//
// Only for the user of your own login session: never an id that came from the page. One secret signs one format.

declare(strict_types=1);

/** Format `hmac`. It never expires: prefer user_token where your client can carry one. */
function user_hash(string $secret, string $user_id): string
{
    return hash_hmac('sha256', real($user_id), $secret);
}

/** Format `karta-v2`: the user confirmed who they are, at this time (Unix seconds) and in this way, such as "mfa". */
function karta_token(string $secret, string $user_id, int $stepped_up_at, string $aal): string
{
    $payload = encoded(['user_id' => real($user_id), 'stepped_up_at' => $stepped_up_at, 'aal' => $aal]);
    return "v2.$payload." . hash_hmac('sha256', $payload, $secret);
}

/** Format `jwt`, HS256: the claims, with `sub` or `user_id` among them, good for `$lifetime` seconds. */
function user_token(string $secret, array $claims, ?int $now = null, int $lifetime = 300): string
{
    real($claims['user_id'] ?? $claims['sub'] ?? '');
    $now ??= time();
    $signed = encoded(['alg' => 'HS256', 'typ' => 'JWT']) . '.' . encoded([...$claims, 'iat' => $now, 'exp' => $now + $lifetime]);
    return $signed . '.' . base64url(hash_hmac('sha256', $signed, $secret, true));
}

/** Refuses what comes out where nobody is signed in. */
function real(string $user_id): string
{
    if (in_array($user_id, ['', 'undefined', 'null', 'None'], true)) {
        throw new InvalidArgumentException('nobody is signed in');
    }
    return $user_id;
}

function encoded(array $value): string
{
    return base64url(json_encode($value, JSON_THROW_ON_ERROR));
}

function base64url(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

// A line of JSON in, a token out.
if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    $secret = getenv('IDENTITY_SECRET') ?: throw new RuntimeException('IDENTITY_SECRET is not set');
    while (($line = fgets(STDIN)) !== false) {
        $asked = json_decode($line, flags: JSON_THROW_ON_ERROR); // objects stay objects, so that an empty one does too
        $now = $asked->now ?? time();
        echo match ($asked->format) {
            'hmac' => user_hash($secret, $asked->user_id),
            'karta-v2' => karta_token($secret, $asked->user_id, $now, $asked->aal),
            'jwt' => user_token($secret, (array) $asked->claims, $now),
        }, "\n";
    }
}
