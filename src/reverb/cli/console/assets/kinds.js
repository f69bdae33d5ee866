// The kind of a channel, from the prefix of its name.

export function kindOf(name) {
  if (name.startsWith("private-encrypted-")) return "encrypted";
  return /^(private|presence)-/.exec(name)?.[1] ?? "public";
}
