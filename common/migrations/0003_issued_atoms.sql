-- What has been deposited of an asset, less what was withdrawn. While it fits into 64 bits, so does every
-- balance that trades can make: TX2 cannot overflow an account (I10).
ALTER TABLE assets ADD issued_atoms bigint NOT NULL DEFAULT 0 CHECK (issued_atoms >= 0);
UPDATE assets a SET issued_atoms = l.atoms
FROM (SELECT asset_id, sum(delta_atoms) AS atoms FROM ledger WHERE user_id <> 0 GROUP BY asset_id) l
WHERE l.asset_id = a.asset_id;
